//! The daemon around a supervision tree.
