"""Models that speak: opened by the words that every command knows them by, asked once or talked to."""
