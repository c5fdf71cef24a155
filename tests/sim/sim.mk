# Machines of the daemons that the simulator runs.
SIM_SRC += services/quorumd/quorum_fsm.c services/quorumd/quorum_slot.c
