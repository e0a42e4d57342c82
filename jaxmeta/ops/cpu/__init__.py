"""Kernels for the CPU; `jaxmeta.ops` picks them when a program is lowered for one."""
