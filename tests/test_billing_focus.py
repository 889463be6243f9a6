"""The FOCUS export: its form by the 1.2 specification, its figures by our own arithmetic, which finds what is wrong."""

import csv
import io
import string
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_documents import CHANGE, HOSTILE, NOVEMBER, everything, line, note, statement, statements
from rated_statements import example, rated, usages
from roost_platform.billing.exports.arithmetic import focus_faults, statement_faults
from roost_platform.billing.exports.focus import to_focus
from roost_platform.billing.exports.focus_columns import NAMES, faults
from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.lines import Category
from roost_platform.billing.statements import Kind, Status

_NAMES = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=10)


def _rows(*made, issuer=Issuer()) -> list[dict[str, str]]:  # noqa: B008 - frozen
    return list(csv.DictReader(io.StringIO(to_focus(*made, issuer=issuer), newline="")))


def _totals(*made) -> dict[str, Decimal]:
    return {of.id: of.total for of in made}


@given(made=statements(text=_NAMES))
@settings(max_examples=60, deadline=None)
def test_any_right_statement_is_a_right_file(made):
    rows = _rows(made)
    assert statement_faults(made) == []
    assert faults(NAMES, rows) == []
    assert focus_faults(rows, totals=_totals(made)) == []
    assert sum(Fraction(row["BilledCost"]) for row in rows) == made.total


@given(usage=usages(), late=usages(halves=(-1,)))
@settings(max_examples=60, deadline=None)
def test_what_is_rated_is_right_and_so_is_its_file(usage, late):
    """Tiers, allowances, discounts and corrections, of whatever was used: nothing but one rounding per line."""
    made = rated(usage, late=late)
    rows = _rows(made)
    assert statement_faults(made) == []
    assert faults(NAMES, rows) == []
    assert focus_faults(rows, totals=_totals(made)) == []


def test_a_price_is_one_for_all_accounts():
    """FOCUS: a SkuPriceId has one list price and one sku, whoever pays, and whatever tiers of its own it has."""
    rows = [row for row in _rows(example(), example("beta"), example("gamma")) if row["ListUnitPrice"]]
    by_price = {(row["SkuPriceId"], row["SkuId"], row["ListUnitPrice"]) for row in rows}
    assert len(by_price) == len({row["SkuPriceId"] for row in rows})
    assert {row["ContractedUnitPrice"] == row["ListUnitPrice"] for row in rows} == {True, False}


def test_the_columns_are_those_of_the_specification_and_ours_come_last():
    header = to_focus(issuer=Issuer()).removesuffix("\r\n").split(",")
    assert tuple(header) == NAMES
    assert [name for name in header if name.startswith("x_")] == header[-3:]
    mandatory = (
        "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory "
        "ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName "
        "ListCost PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName"
    )
    assert set(mandatory.split()) <= set(header)


def test_a_row_of_usage():
    row = _rows(everything(), issuer=Issuer(name="Acme Hosting", region="eu-1"))[2]
    assert {name: value for name, value in row.items() if value} == {
        "BilledCost": "0.31",
        "BillingAccountId": "tenants/acme",
        "BillingAccountName": "acme",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeDescription": "Compute (tier 1) by iris",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2026-11-15T06:00:00Z",
        "ChargePeriodStart": "2026-11-01T00:00:00Z",
        "ConsumedQuantity": "8123.456789",
        "ConsumedUnit": "Seconds",
        "ContractedCost": "0.307066666624",
        "ContractedUnitPrice": "0.0000378",
        "EffectiveCost": "0.31",
        "InvoiceId": "acme-2026-11",
        "InvoiceIssuerName": "Acme Hosting",
        "ListCost": "0.341185185138",
        "ListUnitPrice": "0.0000420",
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingCurrencyContractedUnitPrice": "0.0000378",
        "PricingCurrencyEffectiveCost": "0.31",
        "PricingCurrencyListUnitPrice": "0.0000420",
        "PricingQuantity": "8123.456789",
        "PricingUnit": "Seconds",
        "ProviderName": "Acme Hosting",
        "PublisherName": "Acme Hosting",
        "RegionId": "eu-1",
        "RegionName": "eu-1",
        "ResourceId": "tenants/acme/models/iris",
        "ResourceName": "iris",
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model serving",
        "ServiceSubcategory": "AI Platforms",
        "SkuId": "compute_seconds",
        "SkuMeter": "Compute",
        "SkuPriceDetails": '{"x_PriceBook":"2026-10"}',
        "SkuPriceId": "2026-10/compute_seconds/0.0000420",
        "x_StatementStatus": "final",
        "x_Tier": "1",
    }


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (0, ("12.400312", "1000000 Requests", "12400312.0", "Requests")),
        (4, ("290.894581844099", "GiB", "312345678901.0", "B")),
        (5, ("2160.000000003194", "GiB-Hours", "8349416423436345.0", "B-Seconds")),
        (8, ("2204311.221", "1000 Rows", "2204311221.0", "Rows")),
        (11, ("0.312", "1000 Cold Starts", "312.0", "Cold Starts")),
    ],
)
def test_quantities_are_in_the_units_that_focus_knows(row, wanted):
    made = _rows(everything())[row]
    assert (made["PricingQuantity"], made["PricingUnit"], made["ConsumedQuantity"], made["ConsumedUnit"]) == wanted


def test_a_credit_has_a_cost_and_no_quantity():
    row = _rows(everything())[1]
    assert row["ChargeCategory"] == "Credit"
    assert row["ChargeDescription"] == "Free allowance: Requests by iris"
    assert {row[name] for name in ("BilledCost", "ListCost", "ContractedCost", "EffectiveCost")} == {"-0.18"}
    assert not any(
        row[name] for name in ("ConsumedQuantity", "PricingQuantity", "ListUnitPrice", "ContractedUnitPrice")
    )


def test_late_usage_is_a_correction_of_its_own_month():
    late = _rows(everything())[-1]
    assert (late["ChargeCategory"], late["ChargeClass"]) == ("Usage", "Correction")
    assert (late["BillingPeriodStart"], late["ChargePeriodStart"]) == ("2026-11-01T00:00:00Z", "2026-10-01T00:00:00Z")
    assert late["x_CorrectedMonth"] == "2026-10"
    assert late["BilledCost"] == "-0.40"


@pytest.mark.parametrize(("kind", "amount", "category"), [(Kind.CREDIT_NOTE, "-5.00", "Credit"), (Kind.DEBIT_NOTE, "5.00", "Adjustment")])  # fmt: skip
def test_a_note_corrects_a_month_that_was_billed(kind, amount, category):
    made = note(kind, "5.00")
    (row,) = rows = _rows(made)
    assert (row["ChargeCategory"], row["ChargeClass"], row["BilledCost"]) == (category, "Correction", amount)
    assert row["InvoiceId"] == made.id != made.of
    assert row["ChargeDescription"].endswith("note for acme-2026-11")
    assert not any(row[name] for name in ("SkuId", "SkuPriceId", "SkuMeter", "ResourceId", "PricingQuantity"))
    assert faults(NAMES, rows) == focus_faults(rows, totals=_totals(made)) == statement_faults(made) == []


def test_tenants_share_a_file():
    tenants = [everything(), everything("beta", Status.DRAFT)]
    rows = _rows(*tenants)
    assert {row["BillingAccountName"] for row in rows} == {"acme", "beta"}
    assert faults(NAMES, rows) == focus_faults(rows, totals=_totals(*tenants)) == []


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable()])
def test_no_field_is_a_formula(text):
    made = statement([line("requests", 1, "1", model=text, variant=text)], tenant=text, id=text)
    (row,) = _rows(made, issuer=Issuer(name=text, region=text))
    for value in row.values():
        assert not value.startswith(("=", "+", "@", "-2"))


@pytest.mark.parametrize(
    ("number", "change", "wanted"),
    [
        (0, {"ListCost": "99.5"}, "row 1: ListCost is 99.5, 0.20 times 12.400312 is 2.4800624"),
        (0, {"ContractedCost": "2.232056161"}, "row 1: ContractedCost is 2.232056161"),
        (0, {"EffectiveCost": "2.24"}, "row 1: EffectiveCost is 2.24, BilledCost 2.23"),
        (0, {"BilledCost": "2.24", "EffectiveCost": "2.24"}, "row 1: BilledCost is 2.24, ContractedCost 2.23205616"),
        (0, {"BilledCost": "2.231"}, "row 1: BilledCost 2.231 is no whole number of minor units"),
        (13, {"ContractedCost": "0.65"}, "row 14: ContractedCost is 0.65, BilledCost 0.64"),
        (13, {"BilledCost": "0.65", "EffectiveCost": "0.65"}, "invoice acme-2026-11: the rows add up to 22672.12"),
        (1, {"ListCost": "-0.20"}, "row 2: ListCost is -0.20, BilledCost -0.18"),
        (0, {"ChargePeriodEnd": "2026-12-01T00:00:01Z"}, "row 1: the charge's time"),
        (0, {"ChargePeriodStart": "2026-10-31T23:59:59Z"}, "row 1: the charge's time"),
        (0, {"BillingCurrency": "EUR", "PricingCurrency": "EUR"}, "invoice acme-2026-11 is in EUR and USD"),
        (0, {"PricingCurrency": "EUR"}, "row 1: priced in EUR, billed in USD"),
        (0, {"InvoiceId": "other"}, "invoice other is not known"),
    ],
)
def test_the_arithmetic_finds_a_file_that_is_wrong(number, change, wanted):
    made = everything()
    rows = _rows(made)
    rows[number] |= change
    assert any(fault.startswith(wanted) for fault in focus_faults(rows, totals=_totals(made)))


@pytest.mark.parametrize("amount", ["0.18", "-2.24"])
def test_the_arithmetic_finds_a_credit_that_charges_or_exceeds_what_it_credits(amount):
    made = everything()
    rows = _rows(made)
    rows[1] |= dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), amount)
    assert any("a credit of" in fault for fault in focus_faults(rows, totals=_totals(made)))
    wrong = replace(made.lines[1], amount=Decimal(amount))
    assert any("a credit of" in fault for fault in statement_faults(statement([made.lines[0], wrong])))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"amount": Decimal("2.24")}, "line 1: the amount is 2.24, 12400312 at 0.18 per 1000000 are 2.23205616"),
        ({"list_amount": Decimal("2.49")}, "line 1: the list amount is 2.49"),
        ({"amount": Decimal("2.232")}, "line 1: the amount 2.232 is no whole number of minor units of USD"),
        ({"start": CHANGE, "end": CHANGE}, "line 1: its time is not within the month"),
        ({"category": Category.CORRECTION, "month": "2026-11"}, "line 1: a correction of 2026-11 in 2026-11"),
        ({"category": Category.CORRECTION}, "line 1: a correction of no month in 2026-11"),
    ],
)
def test_the_arithmetic_finds_a_line_that_is_wrong(change, wanted):
    made = statement([replace(everything().lines[0], **change)])
    assert any(fault.startswith(wanted) for fault in statement_faults(made))


def test_the_arithmetic_finds_a_total_that_is_wrong():
    made = replace(everything(), total=Decimal("22672.12"))
    assert statement_faults(made) == ["the lines add up to 22672.11, the total is 22672.12"]


def test_the_arithmetic_finds_a_note_that_goes_the_wrong_way():
    gives = replace(note(Kind.CREDIT_NOTE, "5.00"), kind=Kind.DEBIT_NOTE)
    takes = replace(note(Kind.DEBIT_NOTE, "5.00"), kind=Kind.CREDIT_NOTE)
    assert statement_faults(takes) == ["a credit note takes 5.00"]
    assert statement_faults(gives) == ["a debit note gives 5.00"]
    assert focus_faults(_rows(takes), totals=_totals(takes)) == ["row 1: Credit of 5.00"]
    assert focus_faults(_rows(gives), totals=_totals(gives)) == ["row 1: Adjustment of -5.00"]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"BilledCost": ""}, "BilledCost must be there"),
        ({"BilledCost": "5"}, "BilledCost must be a decimal with a point"),
        ({"BilledCost": "+5.0"}, "BilledCost must be a decimal with a point"),
        ({"ListUnitPrice": "-1.0"}, "ListUnitPrice must not be negative"),
        ({"ListUnitPrice": ""}, "ListUnitPrice must be there for usage"),
        ({"BillingCurrency": "XXX"}, "BillingCurrency must be an ISO 4217 code"),
        ({"ChargeCategory": "Fee"}, "ChargeCategory must be one of"),
        ({"ChargeFrequency": "Sometimes"}, "ChargeFrequency must be one of"),
        ({"ChargePeriodStart": "2026-11-01"}, "ChargePeriodStart must be a time"),
        ({"ConsumedUnit": ""}, "ConsumedQuantity and ConsumedUnit must both"),
        ({"InvoiceIssuerName": "Other"}, "provider, publisher and issuer must be one"),
        ({"SkuPriceDetails": '{"x":{}}'}, "SkuPriceDetails must be an object of plain values"),
        ({"SkuPriceDetails": "{"}, "SkuPriceDetails must be an object of plain values"),
        ({"ResourceName": "tenants/acme/models/iris"}, "ResourceName must not repeat ResourceId"),
        ({"ChargeCategory": "Credit"}, "ConsumedQuantity must be empty for what is no usage"),
        ({"ServiceName": "Déjà"}, "ServiceName must be ASCII text"),
    ],
)
def test_the_check_of_form_finds_a_value_that_is_wrong(change, wanted):
    rows = _rows(everything())
    rows[0] |= change
    assert any(fault.startswith(f"row 1: {wanted}") for fault in faults(NAMES, rows))


def test_the_check_of_form_finds_a_column_too_few_or_too_many():
    assert faults(NAMES[1:], []) == ["column BilledCost is missing"]
    assert faults((*NAMES, "Tags"), []) == ["column Tags is not one of ours"]


def test_periods_are_in_utc():
    assert {row["BillingPeriodStart"] for row in _rows(everything())} == {f"{NOVEMBER.start:%Y-%m-%dT%H:%M:%SZ}"}
