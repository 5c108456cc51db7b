"""Actions on people, teams, keys and sign-ins."""
