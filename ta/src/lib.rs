//! ringfence-ta
