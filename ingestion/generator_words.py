"""Words that generated records are made of. Invented people in real places; more than one fits on a line on purpose."""

FIRST_NAMES = """
James Mary John Patricia Robert Jennifer Michael Linda William Elizabeth David Barbara Richard Susan Joseph Jessica Thomas
Sarah Charles Karen Daniel Nancy Matthew Lisa Anthony Betty Mark Margaret Donald Sandra Steven Ashley Paul Kimberly Andrew Emily
Joshua Donna Kenneth Michelle Kevin Carol Brian Amanda George Melissa Edward Deborah Ronald Stephanie Lukas Anna Felix Lena Paul
Marie Jonas Sophie Leon Julia Hugo Camille Louis Chloé Jules Inès Théo Zoé Mateo Lucía Diego Sofía Carlos Elena Javier Carmen
Giulia Luca Marco Chiara Francesca Matteo João Beatriz Tiago Inês Pedro Mariana Björn Astrid Søren Ingrid Zoë Łukasz Agnieszka
Jiří Tereza Aarav Priya Rohan Ananya Wei Mei Hiroshi Yuki Kenji Sakura Min-jun Ji-woo Omar Fatima Yusuf Layla Amina Kwame Ngozi
""".split()  # noqa: SIM905 - a paragraph of words is easier to read than a list of quotes

LAST_NAMES = """
Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson Anderson Thomas Taylor
Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis Robinson Walker Young Allen King Wright Scott
Torres Nguyen Hill Flores Green Adams Nelson Baker Hall Rivera Campbell Mitchell Carter Roberts Müller Schmidt Schneider Fischer
Weber Meyer Wagner Becker Hoffmann Schulz Dubois Lefebvre Moreau Laurent Simon Michel Fournier Girard Rossi Ferrari Esposito
Bianchi Romano Colombo Silva Santos Ferreira Pereira Oliveira Costa Hansen Olsen Larsen Johansson Karlsson Nilsson Kowalski
Wiśniewski Nowák Novák Dvořák Patel Sharma Singh Gupta Khan Wang Li Zhang Chen Tanaka Suzuki Sato Kim Park Choi Ali Hassan
Okafor Mensah Diallo O'Brien O'Neill Murphy Kelly Walsh Byrne MacDonald Stewart
""".split()  # noqa: SIM905

# Country, weight, telephone code, digits of a subscriber number, cities by size.
COUNTRIES: tuple[tuple[str, int, str, int, tuple[str, ...]], ...] = (
    ("USA", 420, "1", 10, ("New York", "Los Angeles", "Chicago", "Houston", "Phoenix", "Philadelphia", "San Antonio",
                           "San Diego", "Dallas", "Austin", "Boston", "Seattle", "Denver", "Portland", "Springfield",
                           "Cambridge")),
    ("Germany", 90, "49", 10, ("Berlin", "Hamburg", "München", "Köln", "Frankfurt am Main", "Stuttgart", "Leipzig")),
    ("United Kingdom", 85, "44", 10, ("London", "Birmingham", "Manchester", "Glasgow", "Leeds", "Bristol", "Cambridge")),
    ("France", 70, "33", 9, ("Paris", "Marseille", "Lyon", "Toulouse", "Nice", "Nantes")),
    ("India", 70, "91", 10, ("Mumbai", "Delhi", "Bengaluru", "Hyderabad", "Chennai", "Pune")),
    ("Canada", 55, "1", 10, ("Toronto", "Montréal", "Vancouver", "Calgary", "Ottawa")),
    ("Brazil", 45, "55", 10, ("São Paulo", "Rio de Janeiro", "Brasília", "Salvador", "Fortaleza")),
    ("Spain", 40, "34", 9, ("Madrid", "Barcelona", "Valencia", "Sevilla")),
    ("Italy", 40, "39", 9, ("Roma", "Milano", "Napoli", "Torino")),
    ("Netherlands", 25, "31", 9, ("Amsterdam", "Rotterdam", "Utrecht")),
    ("Australia", 25, "61", 9, ("Sydney", "Melbourne", "Brisbane", "Perth")),
    ("Poland", 20, "48", 9, ("Warszawa", "Kraków", "Łódź", "Wrocław")),
    ("Japan", 15, "81", 10, ("Tokyo", "Osaka", "Nagoya")),
)  # fmt: skip

STREETS = """
Main Oak Pine Maple Cedar Elm Washington Lake Hill Park Walnut Spring North Ridge Church Willow Mill River Sunset Railroad
Jefferson Center Highland Forest Jackson Franklin Lincoln Meadow Chestnut Station
""".split()  # noqa: SIM905
STREET_KINDS = ("St", "Ave", "Rd", "Blvd", "Ln", "Dr")

COMPANIES = """
Acme Globex Initech Umbra Vandelay Northwind Contoso Fabrikam Tailspin Wingtip Litware Proseware Adatum Lucerne Trey Woodgrove
Alpine Fourthcoffee Blueyonder Cohovine Margies Humongous Graphic Relecloud Consolidated Southridge Nodwell Brightwater Ironvale
Silverline Redwood Bluepeak Greenfield Stonebridge Clearwater Oakmont Riverton Summit Pinnacle Horizon
""".split()  # noqa: SIM905
FREE_MAIL = ("example.com", "example.org", "example.net", "mail.example.com", "inbox.example.org")

STATUSES = (("active", 70), ("pending", 12), ("inactive", 12), ("suspended", 3), ("closed", 3))
PLANS = ("free", "basic", "pro", "enterprise")
SOURCES = ("web", "referral", "import", "event", "partner")
