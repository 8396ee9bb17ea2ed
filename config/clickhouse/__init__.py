"""ClickHouse, the store that customers search: clients, schema migrations, the version of its data."""
