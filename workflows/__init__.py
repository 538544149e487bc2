"""The hall: order, timing and retries; nothing is done here, everything is arranged here."""
