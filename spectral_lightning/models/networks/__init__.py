"""The nonlinear networks."""
