"""What the machine gives: files, locks, signals, devices, compiled code, streams of random numbers.

Every file that may be damaged or hostile is read through `reading`, every random number comes from `streams`.
Imports only the contract.
"""
