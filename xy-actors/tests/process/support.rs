//! What the tests here share: the scripted program, a host, and waiting with a deadline.
