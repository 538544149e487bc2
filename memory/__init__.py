"""The house: what the product is. Knows neither FastAPI nor Temporal."""
