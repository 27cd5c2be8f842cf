"""The live runtime, in the making: so far registers in shared memory."""
