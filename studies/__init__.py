"""The experiments of Wang & Pehlevan 2025 and some of ours: trainings, their stored results, and the page they make."""
