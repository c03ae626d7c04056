//! One message per line, bounded in length and in time.
