#!/usr/bin/env python3
"""Runs a program where system calls are refused, as container profiles and old kernels refuse them.

usage: refuse_calls.py CALL=ERRNO... -- PROGRAM [ARGUMENT ...]
    CALL: io_uring_setup, io_uring_enter, io_uring_register, openat2 or inotify_init1
    ERRNO: EPERM (Docker's profile), ENOSYS (Podman's profile; a kernel without the call) or another one
"""

import ctypes
import errno
import os
import struct
import sys

# From <linux/seccomp.h>, <linux/filter.h> and <linux/prctl.h>.
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RETURN_ERRNO, RETURN_ALLOW = 0x00050000, 0x7FFF0000
# Calls of Linux 5.1 and later have the same number on every architecture but Alpha.
NUMBERS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "openat2": 437}
NUMBERS["inotify_init1"] = {"x86_64": 294, "aarch64": 26, "armv7l": 360}.get(os.uname().machine)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def refuse(refusals):
    instructions = [(LOAD_WORD, 0, 0, 0)]
    for number, code in refusals:
        instructions += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, RETURN_ERRNO | code)]
    instructions.append((RETURN, 0, 0, RETURN_ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
    program = Program(len(instructions), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))):
        if libc.prctl(*call) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


end = sys.argv.index("--")
pairs = [word.split("=") for word in sys.argv[1:end]]
refuse([(NUMBERS[call], getattr(errno, name)) for call, name in pairs])
os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
