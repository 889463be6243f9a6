"""ISO 4217: the currencies in use and how many digits their minor unit has; rounding to it.

As of amendment 180 (in force since 2026-01-01). Left out is what nobody pays with: funds, metals, codes for tests.
"""

from decimal import Context, Decimal
from fractions import Fraction

_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC "
        "CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR "
        "JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD "
        "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN "
        "SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
}

MINOR_UNITS: dict[str, int] = {code: digits for digits, codes in _DIGITS.items() for code in codes.split()}
"""Digits after the point of an amount in this currency."""

_EXACT = Context(prec=200)
"""Digits enough for any sum of amounts: nothing is rounded but by `rounded`."""


def rounded(exact: Fraction, currency: str) -> Decimal:
    """An amount in whole minor units of this currency: halves go to the even one, as `round` of a Fraction has it."""
    digits = MINOR_UNITS[currency]
    return Decimal(round(exact * 10**digits)).scaleb(-digits, context=_EXACT)
