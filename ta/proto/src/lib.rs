#![no_std]
//! ringfence-proto
