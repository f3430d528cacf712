"""The process that looks after the model servers, and after nothing else. Knows neither Flask nor the database."""
