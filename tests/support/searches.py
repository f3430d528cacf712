"""Texts and what finds them, or does not: words of many languages, and names of many kinds by their parts."""


# ruff: noqa: RUF001 - letters that look like others are part of the test

from __future__ import annotations

_URL = "See https://www.Example.com/docs/getting-started?lang=en&v=2#top for more."
_PATH = "It stands in /usr/local/lib/python3.11/site-packages/my_module.py:42, I think."
_WINDOWS_PATH = r"Open C:\Users\Ann\Report_2024.final.docx"
_CAMEL = "Call parseHTTPRequest(userId, newItem) twice."
_SNAKE = "MAX_RETRY_COUNT = 3 and snake_case_name"
_MAIL = "Write to ann.o'neil+news@mail.example.org today"
_CHINESE = "我们在北京学习中文，用Python写程序。"
_JAPANESE = "東京タワーに行きました。\uff76\uff9e\uff7d"
_THAI = "สวัสดีชาวโลก"
_KOREAN = "서울에서 한국어를 배운다"
_RUSSIAN = "Зебра живёт в Африке"
_GREEK = "Η Αθήνα είναι η πρωτεύουσα"
_ACCENTS = "L'ÉCOLE est fermée; Straße; Łódź; mañana; Tiếng Việt"
_HINDI = "नमस्ते दुनिया"
_ARABIC = "مرحبا بالعالم"
_HEBREW = "שלום עולם"
_SYMBOLS = "100%_sure → done ✓ 🙂! C++ and C# x=1 10.0.0.1"
_PLAIN = "The quagga, a zebra with brown\nstripes; don\u2019t ask"

FOUND = [
    *((_URL, search) for search in ("example.com", "www.example", "getting-started", "started", "lang=en", "#top",
                                    "https://www.example.com/docs/getting-started?lang=en&v=2#top", "exam", "v")),
    *((_PATH, search) for search in ("my_module.py", "module", "/usr/local/lib", "python3.11", "site-packages", "py",
                                     "my", "42", "usr/local", "module.py:42", "ython3")),
    *((_WINDOWS_PATH, search) for search in (r"C:\Users", r"users\ann", "report_2024", "2024.final", "docx", "ann")),
    *((_CAMEL, search) for search in ("userid", "userId", "user", "id", "request", "http", "parsehttp", "Item",
                                      "newItem)", "parseHTTPRequest(userId")),
    *((_SNAKE, search) for search in ("retry", "max_retry", "RETRY_COUNT", "count = 3", "case_name", "3", "snake")),
    *((_MAIL, search) for search in ("ann", "o'neil", "example.org", "@mail", "news@mail.example", "+news", "org")),
    *((_CHINESE, search) for search in ("中文", "中", "北京", "学习中文", "python",
                                        "用python写", "中文 北京", '"中文 用"',
                                        '"学习 中文"')),
    *((_JAPANESE, search) for search in ("東京", "タワー", "行き", "ガス", "に")),
    *((_THAI, search) for search in ("สวัสดี", "ชาว", "โลก")),
    *((_KOREAN, search) for search in ("서울", "한국어", "한국", "운", "배운다")),
    *((_RUSSIAN, search) for search in ("зебра", "ЗЕБРА", "фрик",
                                        "живет", "в", '"живёт в"')),
    *((_GREEK, search) for search in ("ΑΘΗΝΑ", "αθηνα", "ευουσα", "η")),
    *((_ACCENTS, search) for search in ("école", "ecole", "FERMÉE", "strasse", "STRASSE", "lódź", "lodz",
                                        "mañana", "MAÑANA", "viet", "Việt")),
    *((_HINDI, search) for search in ("नमस्ते", "दुनि")),
    *((_ARABIC, search) for search in ("مرحبا", "العالم")),
    *((_HEBREW, search) for search in ("שלום", "ולם")),
    *((_SYMBOLS, search) for search in ("100%_sure", "%_sure", "100", "→", "✓", "🙂", "c++", "C#", "c",
                                        "x=1", "10.0.0.1", "0.0.1")),
    *((_PLAIN, search) for search in ("quagga", "QUAGGA", "quag", "agga", "zebra quagga", '"quagga a zebra"',
                                      '"quagga, a zebra"', '"brown stripes"', "quagga -horse", "horse or zebra",
                                      "don't", "don\u2019t",
                                      "zebra,", "(zebra)", '"with brown" -"brown with"', "a", "the")),
]  # fmt: skip
NOT_FOUND = [
    (_URL, "example.org"), (_URL, "get started-"), (_URL, "to"), (_PATH, "py nowhere"), (_PATH, "y"),
    (_CAMEL, "se"), (_CAMEL, "userId -request"), (_SNAKE, "snakecase"), (_MAIL, "example.com"),
    (_CHINESE, "文中"), (_CHINESE, "上海"), (_CHINESE, '"中文 北京"'),
    (_JAPANESE, "京都"), (_THAI, "ชาย"), (_KOREAN, "울서"),
    (_RUSSIAN, "зебры"), (_RUSSIAN, "жи"), (_SYMBOLS, "100%sure"), (_SYMBOLS, "1%_"),
    (_SYMBOLS, "%_s"), (_SYMBOLS, "++"), (_SYMBOLS, "d++"), (_PLAIN, '"zebra quagga"'),
    (_PLAIN, "zebra -stripes"), (_PLAIN, "-zebra"), (_PLAIN, "horse or donkey"), (_PLAIN, "ze"),
    (_PLAIN, "'; DROP TABLE messages; --"), (_PLAIN, ""), (_PLAIN, "..."),
    (_PLAIN, '"with stripes"'),
]  # fmt: skip
