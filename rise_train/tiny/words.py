"""Ordinary English words and value pools for procedural tools. No server's and no benchmark's text stands here."""

VERBS = {
    "get": ["get", "fetch", "give me", "show me", "look up", "tell me", "pull up"],
    "list": ["list", "show", "show all", "what are", "give me all", "which are"],
    "create": ["create", "make", "set up", "start", "prepare", "I need"],
    "add": ["add", "put", "insert", "append", "place"],
    "delete": ["delete", "remove", "drop", "get rid of", "throw away", "clear"],
    "update": ["update", "change", "modify", "adjust", "edit"],
    "set": ["set", "change", "make", "switch"],
    "find": ["find", "search for", "look for", "where is", "locate"],
    "read": ["read", "open", "show me", "what is in", "what does it say in"],
    "write": ["write", "put", "enter", "store", "fill in"],
    "convert": ["convert", "turn", "translate", "change", "how much is"],
    "compute": ["compute", "calculate", "work out", "how much is", "what is"],
    "compare": ["compare", "what changed in", "what is different in", "check the difference in"],
    "copy": ["copy", "duplicate", "clone", "make a copy of"],
    "move": ["move", "shift", "relocate", "bring"],
    "rename": ["rename", "call", "give a new name to"],
    "merge": ["merge", "combine", "join", "bring together"],
    "split": ["split", "divide", "separate", "break up"],
    "format": ["format", "style", "lay out", "tidy up"],
    "check": ["check", "verify", "validate", "test", "is it right:"],
    "send": ["send", "mail", "pass on", "deliver"],
    "book": ["book", "reserve", "order", "arrange"],
    "cancel": ["cancel", "call off", "drop"],
    "open": ["open", "load", "bring up"],
    "save": ["save", "store", "keep"],
    "export": ["export", "download", "write out"],
    "import": ["import", "load", "bring in"],
    "count": ["count", "how many are there of", "number of"],
    "describe": ["describe", "explain", "what is", "give details on"],
    "apply": ["apply", "use", "put"],
    "track": ["track", "follow", "where is"],
    "assign": ["assign", "give", "hand"],
    "replace": ["replace", "swap", "exchange"],
    "draw": ["draw", "plot", "make", "sketch"],
    "play": ["play", "do", "make"],
    "reset": ["reset", "clear", "start over with"],
    "protect": ["protect", "lock", "guard"],
    "run": ["run", "execute", "carry out"],
    "extract": ["extract", "pull out", "take", "get"],
    "query": ["query", "ask for", "look up", "select"],
}
NOUNS = (
    "file report user ticket invoice task note photo video map route room desk lamp device sensor server log backup contract "
    "lead contact campaign survey course lesson exam grade book page recipe plant pet doctor patient parcel truck driver ship "
    "port gate seat bus bike park trail lake field farm tool part machine model job shift salary loan bond fund share quote bill "
    "budget tax card wallet coin gift badge game player team match league song album movie channel article comment forum vote "
    "event guest menu table wine pizza cake store shelf box label stock price brand sheet column row cell range chart title slide "
    "deck shape picture text paragraph heading list style color font border footer comment branch commit change message tag line "
    "word letter number value unit weight length speed area volume pressure energy power heat angle time zone date day month year "
    "clock alarm meeting agenda minutes letter draft folder path record entry index key query schema customer order product stock "
    "city region country street address phone name email account password group role member manager office building floor window "
    "door engine wheel tire battery cable screen printer camera phone laptop keyboard mouse cloud network port signal board piece "
    "move position opening score level round turn result total average sum root power fraction formula expression equation function "
    "matrix vector graph node edge tree link image icon button form field option setting template layout section chapter footnote "
    "reference citation summary abstract review plan goal step phase project sprint issue bug patch release version package module"
).split()
ADJECTIVES = "new old open main local remote first last current next full short long red blue daily weekly monthly top active".split()
WORDS = (
    "jazz winter garden coffee yoga travel poetry robot climate history soccer vegan noodle guitar theatre physics marathon ceramic "
    "solar harvest silver puzzle mountain museum opera chess drone fabric glacier hockey island jungle kettle lantern magnet novel "
    "orchid pepper quartz rocket sailing tennis umbrella velvet walnut zebra market planet thunder castle bridge copper desert forest "
    "galaxy hammer insect jacket kitchen lemon mirror needle ocean pencil rabbit saddle temple violin anchor basket candle dragon "
    "eagle falcon quarter annual growth revenue cost profit sales north south east west central team launch final draft summer spring "
    "autumn morning evening welcome thanks status pending done total overview details notes ideas budget goals risks next steps"
).split()
CITIES = (
    "London Paris Denver Tokyo Berlin Madrid Oslo Lima Cairo Boston Seattle Austin Lisbon Vienna Prague Dublin Athens Seoul Osaka "
    "Mumbai Delhi Sydney Perth Toronto Montreal Chicago Houston Dallas Miami Milan Rome Naples Lyon Munich Hamburg Zurich Geneva "
    "Warsaw Helsinki Bergen Porto Seville Quito Bogota Havana Nairobi Accra Lagos Dakar Hanoi Manila Jakarta Bangkok Kyoto Auckland"
).split()
ZONES = "Europe America Asia Africa Pacific Australia".split()
FIRST = (
    "Anna Ben Carla David Elena Felix Grace Hugo Irene Jonas Leo Maria Nils Olga Pedro Rosa Sam Tara Vera Walt Yuki Zoe Amir Chen "
    "Dario Emil Freya Hana Ivan Karim Lena Marco Nadia"
).split()
LAST = "Smith Novak Garcia Kim Okoro Larsen Rossi Weber Silva Tanaka Patel Khan Meyer Costa Jensen Moreau Nagy Sato Vogel White".split()
MONTHS = "January February March April May June July August September October November December".split()
EXTENSIONS = "xlsx docx pptx csv txt md pdf json db py html png".split()
CHOICES = (
    ("asc", "desc"), ("open", "closed", "pending"), ("fast", "slow", "auto"), ("pdf", "csv", "json", "html"),
    ("red", "blue", "green", "black"), ("mail", "sms", "push"), ("km", "mile", "meter"), ("newest", "oldest", "cheapest"),
    ("public", "private", "team"), ("small", "medium", "large"), ("left", "center", "right"), ("bar", "line", "pie"),
    ("day", "week", "month"), ("low", "normal", "high"), ("bold", "italic", "plain"), ("celsius", "kelvin", "fahrenheit"),
    ("gram", "pound", "ounce"), ("top", "bottom", "middle"), ("sum", "average", "count"), ("mit", "apache", "gpl"),
)  # fmt: skip
FILLER = (
    "the a an of to in on for with from by at and or not into onto about under over between before after then also please could you "
    "would can I we me my our it its this that these is are was be been has have do does did will shall may should must how what "
    "which where when who why if so as well like want need wish first second third last next please thanks now today tomorrow "
    "specified given existing available multiple single optional default returns provide supports workbook worksheet spreadsheet "
    "document presentation database repository directory content contents width height size start end source target amount "
    "error invalid success successfully created updated deleted added found failed missing required true false null none"
)
SYLLABLE_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gr kl pl sh st th tr".split()
SYLLABLE_VOWELS = "a e i o u ai ea ou io".split()
SYLLABLE_ENDS = ["", "", "n", "r", "s", "l", "m", "t", "nd", "rk", "x"]
