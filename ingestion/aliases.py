"""Names under which files are known to call the master fields; the first that a file has wins.

Each is written as `mapping.words_of` gives it: lower-case words joined by `_`.
"""

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": (
        "user_id", "userid", "customer_id", "customer_number", "client_id", "member_id", "account_id", "person_id",
        "contact_id", "external_id", "employee_id", "subscriber_id", "patient_id", "student_id", "source_id", "record_id",
        "id", "uid", "uuid", "guid",
    ),
    "email": (
        "email", "e_mail", "email_address", "e_mail_address", "mail", "mail_address", "primary_email", "contact_email",
        "user_email", "customer_email", "work_email", "email_1", "correo", "courriel",
    ),
    "name": (
        "name", "full_name", "fullname", "display_name", "customer_name", "client_name", "contact_name", "person_name",
        "user_full_name", "official_full", "name_official_full", "complete_name", "nombre", "nom_complet",
    ),
    "first_name": (
        "first_name", "firstname", "first", "given_name", "given_names", "forename", "fname", "name_first", "christian_name",
        "vorname", "prenom",
    ),
    "middle_name": ("middle_name", "middlename", "middle", "middle_initial", "name_middle", "second_name"),
    "last_name": (
        "last_name", "lastname", "last", "surname", "family_name", "lname", "name_last", "nachname", "apellido",
    ),
    "phone": (
        "phone", "phone_number", "phonenumber", "telephone", "telephone_number", "tel", "mobile", "mobile_phone",
        "mobile_number", "cell", "cell_phone", "contact_number", "contact_phone", "primary_phone", "work_phone", "home_phone",
        "phone_1", "msisdn", "telefon", "telefono",
    ),
    "address": (
        "address", "street_address", "street", "address_1", "address_line_1", "address_line1", "address1", "addr",
        "full_address", "postal_address", "mailing_address", "home_address", "residence_address", "direccion", "adresse",
        "anschrift",
    ),
    "city": ("city", "town", "city_name", "locality", "municipality", "ciudad", "ville", "stadt", "ort"),
    "country": ("country", "country_code", "country_name", "country_iso", "nation", "pais", "pays", "land"),
    "created_date": (
        "created_date", "created_at", "created", "created_on", "creation_date", "date_created", "create_date", "signup_date",
        "sign_up_date", "signed_up_at", "registration_date", "registered_at", "registered_on", "registered", "date_registered",
        "joined", "join_date", "joined_at", "date_joined", "member_since", "inserted_at",
    ),
    "status": (
        "status", "account_status", "user_status", "customer_status", "member_status", "subscription_status",
        "current_status", "record_status",
    ),
}  # fmt: skip

# A nested value may take its meaning from its last name when what holds it says nothing of its own.
NEUTRAL_PARENTS = frozenset(
    {
        "contact", "contacts", "contact_info", "contact_information", "contact_details", "customer", "user", "person", "client",
        "member", "profile", "personal", "personal_info", "address", "location", "home", "billing_address", "mailing_address",
        "postal_address", "data", "attributes", "properties", "details", "info", "record", "fields", "main", "primary",
    }
)  # fmt: skip

# What a list's current member may say about the record itself. An id, a name or a date in a list is somebody else's.
LIST_TARGETS = ("phone", "email", "address", "city", "country")

# Lists whose members are other people or things: their phone is not the record's.
OTHERS = frozenset(
    {
        "family", "relatives", "relations", "children", "parents", "siblings", "spouses", "dependents", "emergency_contacts",
        "references", "referees", "friends", "followers", "employees", "staff", "assistants", "managers", "agents", "lawyers",
        "witnesses", "colleagues", "orders", "purchases", "payments", "invoices", "transactions", "items", "products", "events",
        "messages", "employers", "companies", "jobs", "schools", "banks", "suppliers", "shipments", "deliveries",
    }
)  # fmt: skip

# What the value itself is called in a list that is named after it: `phones[-1].number`.
LIST_VALUES = frozenset({"number", "value", "text", "full", "formatted"})

# Objects that hold the ids of one thing in several registers: `id.passport`, `id.member`.
ID_PARENTS = frozenset({"id", "ids", "identifiers"})

STATE_NAMES = frozenset({"state", "us_state", "state_code", "region"})
