//! Examples of xy; each is a program of its own.
