"""The experiments of Wang & Pehlevan 2025 and what they say: ``make results`` runs them, ``docs/results.md`` shows them."""
