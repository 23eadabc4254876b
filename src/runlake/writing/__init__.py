"""From a value to an object in the store: values, journal, writer, drain, recovery."""
