"""Tests of `odinws.debug`, one module each."""
