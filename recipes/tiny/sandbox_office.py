"""Makes the office files of the sandbox, byte for byte the same each time.

    .servers/mcp2/bin/python recipes/tiny/sandbox_office.py xlsx docx
    .servers/mcp1/bin/python recipes/tiny/sandbox_office.py pptx

The server environments hold the libraries (openpyxl and python-docx in the first, python-pptx in the second).
"""

import io
import re
import struct
import sys
import zipfile
import zlib
from datetime import date, datetime
from pathlib import Path

FOLDER = Path(__file__).parent / "sandbox"
MOMENT = datetime(2025, 1, 2, 9, 0, 0)

ORDERS = """1001 2025-01-06 North Laptop 3 1200|1002 2025-01-09 South Monitor 5 250|1003 2025-01-14 East Keyboard 12 45
1004 2025-01-20 West Mouse 20 18|1005 2025-02-03 North Monitor 4 250|1006 2025-02-07 South Laptop 2 1150
1007 2025-02-12 East Headset 9 60|1008 2025-02-21 West Laptop 1 1300|1009 2025-03-05 North Keyboard 7 42
1010 2025-03-11 South Mouse 15 20|1011 2025-03-18 East Monitor 6 240|1012 2025-03-27 West Headset 8 65"""
BUDGET = {
    "2025": "Rent 24000 24000 fixed|Salaries 180000 176500 hiring delayed|Travel 12000 9400 fewer trips|"
    "Marketing 30000 33800 spring fair|Software 15000 14200 new licences|Training 8000 5100 online courses|"
    "Furniture 5000 6200 new desks|Catering 3000 2900 on track",
    "2026": "Rent 25200 8400 fixed|Salaries 195000 64000 two hires|Travel 14000 5200 two fairs|"
    "Marketing 28000 11500 new website|Software 16500 16100 annual plan|Training 9000 2000 first course|"
    "Furniture 2000 400 chairs|Catering 3500 1300 on track",
}
STAFF = """Anna Weber|Berlin|Manager|72000|2018-03-01
Tom Lee|London|Developer|58000|2020-06-15
Maria Rossi|Rome|Designer|51000|2021-09-01
Paul Martin|Paris|Analyst|54000|2019-11-04
Eva Novak|Prague|Developer|47000|2022-02-14
Jack Smith|London|Sales|49500|2017-05-08
Lena Fischer|Berlin|Developer|61000|2020-01-20
Hugo Silva|Lisbon|Support|38000|2023-04-03
Nora Berg|Oslo|Analyst|63000|2021-01-11
Sara Cohen|Paris|Sales|52500|2022-10-17"""


def save(name: str, data: bytes) -> None:
    """Writes a zipped office file anew with fixed dates, and those inside it too."""
    (FOLDER / name).write_bytes(repack(data))


def repack(data: bytes) -> bytes:
    """The same archive, embedded workbooks included, with all dates of members and of the core properties fixed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith(".xlsx"):
                content = repack(content)
            if info.filename == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z", b"2025-01-02T09:00:00Z", content)
            new.writestr(zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED, 9)
    return out.getvalue()


def png(width: int, height: int, color: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes(color) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def make_xlsx() -> None:
    """sales.xlsx, budget.xlsx, staff.xlsx."""
    import openpyxl
    from openpyxl.chart import BarChart, Reference
    from openpyxl.comments import Comment
    from openpyxl.workbook.defined_name import DefinedName
    from openpyxl.worksheet.table import Table

    def finish(book: "openpyxl.Workbook", name: str) -> None:
        book.properties.creator = "Anna Weber"
        book.properties.created = book.properties.modified = MOMENT
        out = io.BytesIO()
        book.save(out)
        save(name, out.getvalue())

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Orders"
    sheet.append(["order_id", "date", "region", "product", "quantity", "price"])
    for line in ORDERS.replace("\n", "|").split("|"):
        number, day, region, product, quantity, price = line.split()
        sheet.append([int(number), date.fromisoformat(day), region, product, int(quantity), int(price)])
    sheet["F2"].comment = Comment("Price agreed in December", "Anna Weber")
    sheet["E5"].comment = Comment("Check the stock", "Tom Lee")
    summary = book.create_sheet("Summary")
    summary.append(["region", "units", "revenue"])
    for row, region in enumerate(["North", "South", "East", "West"], start=2):
        units = f"=SUMIF(Orders!$C$2:$C$13,A{row},Orders!$E$2:$E$13)"
        revenue = f"=SUMPRODUCT((Orders!$C$2:$C$13=A{row})*Orders!$E$2:$E$13*Orders!$F$2:$F$13)"
        summary.append([region, units, revenue])
    summary.append(["total", "=SUM(B2:B5)", "=SUM(C2:C5)"])
    summary.append([])
    summary.append(["discount", 0.1])
    summary.append(["net revenue", "=C6*(1-B8)"])
    chart = BarChart()
    chart.title = "Units by region"
    chart.add_data(Reference(summary, min_col=2, min_row=1, max_row=5), titles_from_data=True)
    chart.set_categories(Reference(summary, min_col=1, min_row=2, max_row=5))
    summary.add_chart(chart, "E2")
    book.defined_names["Prices"] = DefinedName("Prices", attr_text="Orders!$F$2:$F$13")
    book.defined_names["Discount"] = DefinedName("Discount", attr_text="Summary!$B$8")
    finish(book, "sales.xlsx")

    book = openpyxl.Workbook()
    book.remove(book.active)
    for year, lines in BUDGET.items():
        sheet = book.create_sheet(year)
        sheet.append(["category", "planned", "actual", "note"])
        for line in lines.split("|"):
            category, planned, actual, note = line.split(maxsplit=3)
            sheet.append([category, int(planned), int(actual), note])
    finish(book, "budget.xlsx")

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "People"
    sheet.append(["name", "city", "role", "salary", "start"])
    for line in STAFF.split("\n"):
        name, city, role, salary, start = line.split("|")
        sheet.append([name, city, role, int(salary), date.fromisoformat(start)])
    sheet.add_table(Table(displayName="Team", ref="A1:E11"))
    sheet["D3"].comment = Comment("Raise due in June", "Anna Weber")
    finish(book, "staff.xlsx")


def make_docx() -> None:
    """report.docx, minutes.docx, letter.docx."""
    import docx
    from docx.shared import Inches

    def finish(document: "docx.document.Document", name: str, title: str, author: str) -> None:
        properties = document.core_properties
        properties.title, properties.author, properties.comments = title, author, ""
        properties.created = properties.modified = MOMENT
        for section in document.sections:
            section.left_margin = section.right_margin = Inches(1)
        for comment in document.part._comments_part.element.iterchildren() if document.comments else []:
            comment.set("{http://schemas.openxmlformats.org/wordprocessingml/2006/main}date", "2025-01-02T09:00:00Z")
        out = io.BytesIO()
        document.save(out)
        save(name, out.getvalue())

    def write(document: "docx.document.Document", text: str) -> None:
        for line in text.strip().split("\n"):
            kind, _, words = line.partition(" ")
            if kind.startswith("#"):
                document.add_heading(words, len(kind) - 1)
            elif kind == "-":
                document.add_paragraph(words, style="List Bullet")
            else:
                document.add_paragraph(line)

    report = docx.Document()
    write(
        report,
        """
# Annual Report 2025
## Introduction
This report sums up the year 2025 for the board.
The company grew in all four regions.
## Sales
Sales rose by eight percent to 1.2 million euros.
Laptops were again the best product.
The North region had the highest revenue.
""",
    )
    table = report.add_table(rows=5, cols=3)
    cells = "Region Units Revenue|North 14 4894|South 22 3850|East 27 2520|West 29 2180"
    for row, line in zip(table.rows, cells.split("|"), strict=True):
        for cell, word in zip(row.cells, line.split(), strict=True):
            cell.text = word
    write(
        report,
        """
## Team
Ten people work for us in seven cities.
Two new developers joined the team in Berlin.
## Outlook
We expect stable prices and a new website in 2026.
The next report is due in March.
""",
    )
    paragraphs = report.paragraphs
    report.add_comment(paragraphs[2].runs, "Name the board members here", "Anna Weber", "AW")
    report.add_comment(paragraphs[5].runs, "Please check this figure", "Tom Lee", "TL")
    report.add_comment(paragraphs[10].runs, "Mention their start dates", "Anna Weber", "AW")
    finish(report, "report.docx", "Annual Report 2025", "Anna Weber")

    minutes = docx.Document()
    write(
        minutes,
        """
# Meeting Minutes
The team met on 12 March 2025 in London.
## Attendees
- Anna Weber
- Tom Lee
- Maria Rossi
## Decisions
The launch moves from April to May.
The budget for marketing stays at 30000 euros.
## Action Items
- Tom Lee prepares the demo
- Maria Rossi draws the new logo
- Anna Weber books the venue
## Next Meeting
We meet again on 26 March 2025 at 10:00.
""",
    )
    table = minutes.add_table(rows=4, cols=3)
    cells = "Task,Owner,Due|Demo,Tom Lee,20 March|Logo,Maria Rossi,24 March|Venue,Anna Weber,31 March"
    for row, line in zip(table.rows, cells.split("|"), strict=True):
        for cell, word in zip(row.cells, line.split(","), strict=True):
            cell.text = word
    minutes.add_comment(minutes.paragraphs[7].runs, "Tell the sales team", "Maria Rossi", "MR")
    finish(minutes, "minutes.docx", "Meeting Minutes", "Tom Lee")

    letter = docx.Document()
    write(
        letter,
        """
Dear Mr Brown,
Thank you for your order of 6 May 2025.
We will ship the laptops on Monday.
The invoice is due within thirty days.
Please call us if you have any questions.
Kind regards,
Anna Weber
""",
    )
    finish(letter, "letter.docx", "Order Confirmation", "Anna Weber")


def make_pptx() -> None:
    """deck.pptx, launch.pptx."""
    import pptx
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Inches

    def slide(show: "pptx.presentation.Presentation", layout: int, title: str, lines: list[str]) -> "pptx.slide.Slide":
        page = show.slides.add_slide(show.slide_layouts[layout])
        page.shapes.title.text = title
        if lines:
            page.placeholders[1].text_frame.text = "\n".join(lines)
        return page

    def finish(show: "pptx.presentation.Presentation", name: str, title: str, author: str) -> None:
        properties = show.core_properties
        properties.title, properties.author, properties.last_modified_by = title, author, author
        properties.created = properties.modified = MOMENT
        out = io.BytesIO()
        show.save(out)
        save(name, out.getvalue())

    show = pptx.Presentation()
    slide(show, 0, "Quarterly Review", ["Sales and Marketing"])
    slide(show, 1, "Agenda", ["Results", "Regions", "Next steps"])
    page = slide(show, 5, "Sales by Region", [])
    table = page.shapes.add_table(4, 3, Inches(1), Inches(2), Inches(8), Inches(2)).table
    for r, line in enumerate(["Region Units Revenue", "North 14 4894", "South 22 3850", "East 27 2520"]):
        for c, word in enumerate(line.split()):
            table.cell(r, c).text = word
    slide(show, 1, "Next Steps", ["Hire two developers", "Open an office in Oslo"])
    finish(show, "deck.pptx", "Quarterly Review", "Anna Weber")

    show = pptx.Presentation()
    slide(show, 0, "Product Launch", ["May 2025"])
    page = slide(show, 5, "The Product", [])
    page.shapes.add_picture(str(FOLDER / "logo.png"), Inches(1), Inches(2), Inches(2))
    page = slide(show, 5, "Launch Budget", [])
    data = CategoryChartData()
    data.categories = ["Ads", "Fair", "Web"]
    data.add_series("Planned", (12000, 9000, 7000))
    frame = (Inches(1), Inches(2), Inches(8), Inches(4))
    page.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *frame, data)
    finish(show, "launch.pptx", "Product Launch", "Tom Lee")


def main() -> None:
    """Writes the pictures and the kinds of files named on the command line."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "logo.png").write_bytes(png(48, 32, (31, 78, 120)))
    (FOLDER / "banner.png").write_bytes(png(96, 24, (192, 80, 40)))
    (FOLDER / "prices.csv").write_text(
        "product,price,stock\nLaptop,1200,7\nMonitor,250,14\nMouse,18,40\nHeadset,60,9\n"
    )
    for kind in sys.argv[1:]:
        {"xlsx": make_xlsx, "docx": make_docx, "pptx": make_pptx}[kind]()


if __name__ == "__main__":
    main()
