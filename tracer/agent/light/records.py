"""The agent's records and the head of its ring file, as struct wants them.

record.h is their definition; tests/unit/test_light.py holds these against it.
"""

from struct import Struct

MAGIC = 0x3150435354494157
SCHEMA = 2
PRCTL = 0x41575343

# the start of `struct agent_ring`, without its magic, and where its other fields are
HEAD = Struct("<8xIIQQQQQII")
HEAD_AT_HEAD, HEAD_AT_TAIL, HEAD_AT_LOST = 40, 48, 64
HEAD_AT_PYTHON, HEAD_AT_ORPHANS, HEAD_AT_WHY = 192, 256, 260
HEAD_AT_ORPHAN_PID, HEAD_AT_ORPHAN_ERRNO, ORPHANS = 264, 324, 15
OPEN_AT, OPEN_RUNS = 1536, 40
KIND_AT = 14  # in each record
MODE_LIGHT = 2

KIND_LOOP, KIND_TASK, KIND_STEP, KIND_CALLBACK = 32, 33, 34, 35
KIND_STRING, KIND_AGENT_GAP, KIND_TASK_NAME, KIND_WORK = 36, 37, 38, 39

LOOP = Struct("<QIHBBIIiiiI24x")
TASK = Struct("<QIHBBIIIIIIQ16x")
TASK_NAME = Struct("<QIHBBII40s")
STEP = Struct("<QIHBBQQIIIIIIII")
CALLBACK = Struct("<QIHBBQQIIII16x")
WORK = Struct("<QIHBBQQIIIIII8x")
STRING = Struct("<QIHBBIHH40s")
AGENT_GAP = Struct("<QIHBBQII32x")

LOOP_UVLOOP = 1

HOW_FUTURE, HOW_TASK, HOW_GATHER, HOW_YIELD = 1, 2, 3, 4
HOW_DONE, HOW_FAILED, HOW_CANCELLED = 5, 6, 7

RUN_TIMER, RUN_THROWN, RUN_EAGER, RUN_CANCEL_REQUEST = 1, 2, 4, 8
RUN_FUTURE_FAILED, RUN_FROM_THREAD, RUN_RESUMED_SAME, RUN_OPEN = 16, 32, 64, 128
