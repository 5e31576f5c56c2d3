"""Those who are measured, a module for each."""
