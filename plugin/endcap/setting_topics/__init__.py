"""The settings by topic. :mod:`endcap.settings` puts them together; nobody else imports these."""
