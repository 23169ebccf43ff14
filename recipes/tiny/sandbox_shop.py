"""Makes the sandbox's database, shop.db: the same content each time, the same bytes with the same SQLite.

python recipes/tiny/sandbox_shop.py
"""

import sqlite3
from contextlib import closing
from pathlib import Path

Row = list[str | int | float]
TARGET = Path(__file__).parent / "sandbox" / "shop.db"

SCHEMA = """
PRAGMA page_size = 1024;
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, email TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, product_id INTEGER, quantity INTEGER, day TEXT,
                     status TEXT);
CREATE TABLE suppliers (id INTEGER PRIMARY KEY, name TEXT, country TEXT);
CREATE TABLE employees (id INTEGER PRIMARY KEY, name TEXT, role TEXT, salary INTEGER);
CREATE TABLE stores (id INTEGER PRIMARY KEY, city TEXT, opened TEXT);
CREATE TABLE payments (id INTEGER PRIMARY KEY, order_id INTEGER, amount REAL, method TEXT);
CREATE TABLE shipments (id INTEGER PRIMARY KEY, order_id INTEGER, carrier TEXT, shipped TEXT);
CREATE TABLE reviews (id INTEGER PRIMARY KEY, product_id INTEGER, stars INTEGER, comment TEXT);
CREATE TABLE categories (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE returns (id INTEGER PRIMARY KEY, order_id INTEGER, reason TEXT);
CREATE TABLE coupons (code TEXT PRIMARY KEY, percent INTEGER, expires TEXT);
"""

CUSTOMERS = """Anna Berg, Oslo|Bilal Khan, Leeds|Carla Rossi, Milan|David Okoye, Lagos|Elif Demir, Izmir
Frank Weber, Bonn|Grace Lin, Taipei|Hugo Martin, Lyon|Ines Costa, Porto|Jack Moore, Leeds|Karin Dahl, Oslo
Liam Byrne, Cork"""
PRODUCTS = """lamp, 24.5, 40|desk, 189.0, 7|chair, 79.9, 25|shelf, 64.0, 12|mirror, 45.0, 9|rug, 120.0, 5
clock, 18.5, 60|vase, 15.0, 33|sofa, 540.0, 2|stool, 32.0, 18|curtain, 27.5, 21|basket, 12.0, 48"""
SUPPLIERS = "Nordwood, Norway|Vetro, Italy|Loomhouse, India|Brightco, Poland|Tamarack, Canada"
EMPLOYEES = """Mira Holt, manager, 5200|Jonas Berg, clerk, 3100|Ada Lind, buyer, 3900|Robin Vale, driver, 2950
Sara Nunes, clerk, 3050|Tom Reed, cleaner, 2600"""
STORES = "Oslo, 2019-04-01|Leeds, 2020-09-15|Lyon, 2022-03-10|Porto, 2024-06-20"
REVIEWS = """1, 5, warm light|3, 4, comfortable|2, 2, arrived scratched|6, 5, lovely colours|7, 3, a bit loud
9, 1, too small|12, 4, sturdy|1, 3, short cable"""
CATEGORIES = "lighting|furniture|textiles|decoration|storage"
RETURNS = "4, damaged|9, wrong colour|13, too late"
COUPONS = "SPRING10, 10, 2026-04-30|WELCOME5, 5, 2026-12-31|SOFA20, 20, 2026-03-15"
STATUSES = ("paid", "shipped", "open", "cancelled")
METHODS = ("card", "cash", "transfer")
CARRIERS = ("Postline", "Swift", "Boxer")


def rows(text: str) -> list[Row]:
    """Split `text` into rows at `|` and line ends, and rows into fields at commas."""
    return [[field.strip() for field in row.split(",")] for row in text.replace("\n", "|").split("|")]


def numbered(text: str) -> list[Row]:
    """The rows of `text`, with a number from 1 in front."""
    return [[index, *row] for index, row in enumerate(rows(text), 1)]


def tables() -> dict[str, list[Row]]:
    """All rows, by table."""
    prices = [float(row[1]) for row in rows(PRODUCTS)]
    bought = [(n * 5 % 12 + 1, n * 7 % 12 + 1, n % 4 + 1) for n in range(20)]
    return {
        "customers": [[*row, f"{str(row[1]).split()[0].lower()}@example.org"] for row in numbered(CUSTOMERS)],
        "products": numbered(PRODUCTS),
        "orders": [
            [n + 1, *ids, f"2026-01-{n + 3:02d}", STATUSES[(n * 3 + n // 4) % 4]] for n, ids in enumerate(bought)
        ],
        "suppliers": numbered(SUPPLIERS),
        "employees": numbered(EMPLOYEES),
        "stores": numbered(STORES),
        "payments": [
            [n + 1, n + 1, round(prices[product - 1] * count, 2), METHODS[n % 3]]
            for n, (_, product, count) in enumerate(bought[:14])
        ],
        "shipments": [[n + 1, n * 2 + 1, CARRIERS[n % 3], f"2026-01-{n * 2 + 6:02d}"] for n in range(8)],
        "reviews": numbered(REVIEWS),
        "categories": numbered(CATEGORIES),
        "returns": numbered(RETURNS),
        "coupons": rows(COUPONS),
    }


def main() -> None:
    """Write the database anew."""
    TARGET.unlink(missing_ok=True)
    with closing(sqlite3.connect(TARGET)) as connection:
        connection.executescript(SCHEMA)
        for table, content in tables().items():
            marks = ", ".join("?" * len(content[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", content)
        connection.commit()
        connection.execute("VACUUM")


if __name__ == "__main__":
    main()
