"""The master schema: the fields that every file is mapped onto, in the order the record's hash reads them."""

FIELDS = ("user_id", "email", "name", "phone", "address", "city", "country", "created_date", "status")

# Parts that are joined into `name` when a file has no whole name.
NAME_PARTS = ("first_name", "middle_name", "last_name")

# A row must say at least one of these about somebody; otherwise there is nothing to find it by.
IDENTIFYING = ("user_id", "email", "name", "phone", "address", "city")

LENGTH_MAX = {
    "user_id": 200,
    "email": 254,
    "name": 300,
    "phone": 64,
    "address": 500,
    "city": 200,
    "country": 100,
    "created_date": 64,
    "status": 64,
}

# What each field's presence and validity adds to data_quality_score; together 100.
WEIGHTS = {
    "user_id": 15,
    "email": 20,
    "name": 20,
    "phone": 15,
    "address": 10,
    "city": 5,
    "country": 5,
    "created_date": 5,
    "status": 5,
}
