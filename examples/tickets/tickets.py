"""Open a ticket for each device whose upgrade failed, and note when a campaign is over.

Run it with ``upcall listen tickets:app``, or with ``upcall work tickets:app`` beside a listener.
"""

from upcall import Upcall

app = Upcall()
desk = {}
campaigns = {}


@app.on_device("UpgradeFailed", "DeviceRejected", max_attempts=5)
def open_ticket(event, device):
    """Open a ticket; the same callback and device open the same one, however often they come."""
    file_ticket(f"{event.key}/{device.device_id}", f"{device.device_id}: {device.reason}")


@app.on("upgradeFinished")
def note_end(event):
    """Note how a campaign ended."""
    campaigns[event.campaign_id] = event.campaign_status


def file_ticket(key, text):
    """Hand a ticket to the desk: here a dictionary, in earnest a call that may fail and is then tried again."""
    desk[key] = text
