"""The queue in memory: what is not sent yet, the threads, and which of it the file does not hold yet."""

from collections.abc import Collection, Iterable

import msgspec

from daemons.alerts.blocks import slack_message
from daemons.alerts.body import body
from daemons.alerts.channels import SLACK, Channels
from daemons.alerts.message import Note, note
from daemons.alerts.posts import Outcome, Post, PostState, Thread, awoken, begun, due, ended, recovered
from daemons.incidents import Kind, Tell

# After these the first message of an incident or storm is changed as well, so that it says how it stands.
_CHANGES_FIRST = frozenset(set(Kind) - {Kind.OPENED, Kind.PASSED, Kind.REMINDER})


class Outbox:
    """Messages by id, in order of sending. Not thread-safe: the desk holds its lock. last: the highest id given."""

    def __init__(self, posts: Iterable[Post], threads: Iterable[Thread], last: int) -> None:
        self._posts = {post.id: post for post in posts}
        self._threads = {(thread.channel, thread.subject): thread for thread in threads}
        self._unsaved: set[int] = set()
        self._unsaved_threads: dict[tuple[str, str], Thread] = {}
        self.last = max([last, *self._posts])

    def add(self, tell: Tell, channels: Channels) -> None:
        """Queue it for every channel that is wanted."""
        told = note(tell)
        for channel in channels.wanted:
            addressed = channel in channels.senders
            if channel == SLACK:
                content = msgspec.json.encode(slack_message(told))
                self._put(tell, told, channel, content, addressed)
                if tell.number > 1 and tell.kind in _CHANGES_FIRST:
                    self._put(tell, told, channel, content, addressed, update=True)
            else:
                self._put(tell, told, channel, msgspec.json.encode(body(tell, told)), addressed)

    def _put(
        self, tell: Tell, told: Note, channel: str, content: bytes, addressed: bool, *, update: bool = False
    ) -> None:
        self.last += 1
        self._keep(
            Post(
                id=self.last,
                channel=channel,
                method="update" if update else "post",
                message=told.id,
                subject=tell.subject,
                number=tell.number,
                kind=str(tell.kind),
                at=tell.at,
                title=f"{told.mark} {told.severity.upper()} {told.title}",
                body=content,
                state=PostState.WAITING if addressed else PostState.UNADDRESSED,
            )
        )

    def _keep(self, post: Post) -> Post:
        self._posts[post.id] = post
        self._unsaved.add(post.id)
        return post

    def recover(self, now: float) -> None:
        """At the start of a process: what was being sent when the last one ended may have been sent."""
        for post in list(self._posts.values()):
            if (after := recovered(post, now)) is not post:
                self._keep(after)

    def awake(self, now: float, addressed: Collection[str]) -> None:
        """At a start and after a reload: what somebody may have mended is tried at once."""
        for post in list(self._posts.values()):
            if (after := awoken(post, now, post.channel in addressed)) is not post:
                self._keep(after)

    def due(self, channel: str, now: float) -> tuple[Post | None, float | None]:
        """What to work on now in this channel, else the seconds until there is something."""
        return due((post for post in self._posts.values() if post.channel == channel), now)

    def thread(self, post: Post, asked: str) -> Thread | None:
        """The thread the message belongs in, unless the channel was changed since."""
        found = self._threads.get((post.channel, post.subject))
        return found if found is not None and found.asked == asked else None

    def begin(self, post: Post, now: float) -> Post:
        """Mark it as being sent."""
        return self._keep(begun(post, now))

    def settle(self, post: Post, outcome: Outcome, asked: str, now: float, jitter: float) -> Post:
        """Mark what became of it; the first message of a subject that is sent begins its thread."""
        after = self._keep(ended(post, outcome, now, jitter))
        if after.state is PostState.SENT and after.method == "post" and after.ts and self.thread(post, asked) is None:
            thread = Thread(
                channel=post.channel, subject=post.subject, asked=asked, place=after.place, ts=after.ts, at=now
            )
            self._threads[post.channel, post.subject] = thread
            self._unsaved_threads[post.channel, post.subject] = thread
        return after

    def open(self) -> list[Post]:
        """What is not finished."""
        return [post for post in self._posts.values() if not post.finished]

    def troubles(self) -> dict[str, str]:
        """By channel, why its next message is not sent yet."""
        said: dict[str, str] = {}
        for post in self.open():
            if post.trouble:
                said.setdefault(post.channel, post.trouble)
        return said

    def changed(self) -> list[Post]:
        """What the file does not hold yet."""
        return [self._posts[key] for key in sorted(self._unsaved)]

    def threaded(self) -> list[Thread]:
        """The threads that the file does not hold yet."""
        return list(self._unsaved_threads.values())

    def stored(self) -> None:
        """The file holds all of it now: what is finished may be forgotten here."""
        for key in self._unsaved:
            if self._posts[key].finished:
                del self._posts[key]
        self._unsaved.clear()
        self._unsaved_threads.clear()
