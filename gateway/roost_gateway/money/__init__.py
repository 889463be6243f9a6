"""What joins metering and billing: statements made and closed, budgets, corrections, and what people ask about money."""
