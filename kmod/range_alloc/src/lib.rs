//! ringfence-range-alloc
