//! The log pipeline on real pipes, files and threads.
