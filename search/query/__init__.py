"""From a customer's request to `(sql, parameters)`: pure, so that every rule of it can be tested as a table.

`body` reads the JSON strictly, `request` turns it into a validated `RecordQuery`, `compile` turns that into SQL in
which every identifier comes from `fields` and every value is a bound parameter.
"""
