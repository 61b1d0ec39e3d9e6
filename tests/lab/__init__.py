"""Lab programs: framed server and clients, comparison of what two servers read, a bad link."""
