"""Keys as midstates in locked memory, tokens signed in C, renewals placed in time."""
