//! ringfence-tests
