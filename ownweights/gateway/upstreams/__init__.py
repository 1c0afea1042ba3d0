"""The way to the rented models: addresses, one client, tries in turn, answers passed back."""
