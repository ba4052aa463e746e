"""HTTP as a server: what computes knows neither requests nor responses nor status codes."""
