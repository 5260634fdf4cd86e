"""Public data sets in their official layouts, by what they show."""
