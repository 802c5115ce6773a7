# SPDX-License-Identifier: BSD-2-Clause
# The firewall pseudo-TA, built out of OP-TEE's tree. OP-TEE's make line gives
#   CFG_RINGFENCE_FIREWALL=y        to have it at all
#   RINGFENCE_FIREWALL_DIR=<dir>    this directory, absolute
#   RINGFENCE_FIREWALL_LIB=<file>   the ledger's static library, absolute
ifeq ($(wildcard $(RINGFENCE_FIREWALL_LIB)),)
$(error RINGFENCE_FIREWALL_LIB=$(RINGFENCE_FIREWALL_LIB): no such file)
endif
srcs-y += firewall_pta.c
libdeps += $(RINGFENCE_FIREWALL_LIB)
