"""The cellar: Postgres. The only SQL of the project."""
