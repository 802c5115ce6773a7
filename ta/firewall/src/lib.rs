//! ringfence-firewall
