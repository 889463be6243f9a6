"""The report for people: one HTML file of a record and its verdict. Pure; knows neither Locust nor the network."""
