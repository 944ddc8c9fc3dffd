#!/usr/bin/env python3
"""Sessions for benches/fast.sh.

  flows.py serve PORT ADDRESS...      answers every line and every datagram there, until it is ended
  flows.py cost KIND DEVICE SOURCE TARGET PORT COUNT SINK SINK-DEVICE CABLE CABLE-MAC ROUTER
                                      prints what one packet of an established session costs: on its way
                                      through the router, and by the cables that pass the router by; and
                                      whether it goes past the rules of the router (1 or 0)
  flows.py talk SOURCE-PREFIX CLIENTS TARGET PORT SESSIONS EACH
                                      opens so many sessions from so many addresses, one in EACH of TCP (0:
                                      none), and keeps them talking until each has lasted for more than two seconds;
                                      then it says so, and waits until it is ended

KIND is udp or tcp. The session talks for three seconds; then the last packet that the client sent is sent
again COUNT times, by a packet socket, and dropped where it arrives: in the namespace SINK, at SINK-DEVICE (or
at the cable's end). The figures are nanoseconds; where the clock counts instructions, instructions.
"""

import socket
import subprocess
import sys
import threading
import time

LATER = 0.5


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(port, addresses):
    for address in addresses:
        for kind, work in ((socket.SOCK_DGRAM, answer_datagrams), (socket.SOCK_STREAM, accept)):
            server = socket.socket(family(address), kind)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            threading.Thread(target=work, args=(server,)).start()


def answer_datagrams(server):
    while True:
        body, peer = server.recvfrom(2048)
        server.sendto(body[:1], peer)


def accept(server):
    server.listen(1024)
    while True:
        session, _ = server.accept()
        threading.Thread(target=answer_lines, args=(session,), daemon=True).start()


def answer_lines(session):
    while session.recv(2048):
        session.sendall(b"x")


def cost(kind, device, source, target, port, count, sink, sink_device, cable, cable_mac, router):
    stream = kind == "tcp"
    session = socket.socket(family(target), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    session.settimeout(5)
    session.bind((source, 0))
    session.connect((target, port))
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind((device, 0))
    sniffer.settimeout(0.2)
    for _ in range(6):
        session.send(b"x" * 60)
        session.recv(100)
        time.sleep(LATER)
    # Of 24 packets one asks to be let into the flowtable.
    for _ in range(400):
        session.send(b"x" * 60)
        session.recv(100)
    frame = last_sent(sniffer, session.getsockname()[1], 6 if stream else 17)
    drop_at(sink, sink_device)
    past_rules = carried(router, device, frame)
    let_in(sink)
    figures = []
    for through, there, to in ((device, sink_device, frame[:6]), (cable, "cable1", mac(cable_mac))):
        drop_at(sink, there)
        figures.append(send_again(through, to + frame[6:], count))
        arrived = let_in(sink)
        if arrived < count * 0.99:
            sys.exit(f"flows: {arrived} of {count} packets arrived at {there}")
    print(*figures, past_rules)


def carried(space, device, frame):
    """Whether packets of the session go past the rules."""
    chain = "type filter hook forward priority -200; meta l4proto { tcp, udp } counter"
    nft(space, f"table inet witness {{\n chain witness {{ {chain}\n }}\n}}\n")
    send_again(device, frame, 50)
    return int(packets(space, "inet witness") < 25)


def mac(text):
    return bytes(int(byte, 16) for byte in text.split(":"))


def last_sent(sniffer, port, protocol):
    """The last packet from this port; what the client sends, not what it hears."""
    found = None
    while True:
        try:
            frame, address = sniffer.recvfrom(2048)
        except TimeoutError:
            break
        six = frame[12:14] == b"\x86\xdd"
        carried, start = (frame[20], 54) if six else (frame[23], 34)
        ours = frame[start : start + 2] == port.to_bytes(2, "big")
        if address[2] == socket.PACKET_OUTGOING and carried == protocol and ours:
            found = frame
    if found is None:
        sys.exit("flows: the session was not seen")
    return summed(bytearray(found), protocol)


def summed(frame, protocol):
    """With the checksum that a network card would have put in."""
    if frame[12:14] == b"\x86\xdd":
        start, addresses = 54, frame[22:54]
        length = int.from_bytes(frame[18:20], "big")
    else:
        start, addresses = 34, frame[26:34]
        length = int.from_bytes(frame[16:18], "big") - 20
    place = start + (16 if protocol == 6 else 6)
    frame[place : place + 2] = b"\0\0"
    body = addresses + protocol.to_bytes(2, "big") + length.to_bytes(2, "big") + frame[start : start + length]
    body += b"\0" * (len(body) % 2)
    total = sum(int.from_bytes(body[at : at + 2], "big") for at in range(0, len(body), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    frame[place : place + 2] = (total ^ 0xFFFF or 0xFFFF).to_bytes(2, "big")
    return bytes(frame)


def send_again(device, frame, count):
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind((device, 0))
    send = sender.send
    begun = time.monotonic_ns()
    for _ in range(count):
        send(frame)
    return (time.monotonic_ns() - begun) // count


def nft(space, script):
    subprocess.run(["ip", "netns", "exec", space, "nft", "-f", "-"], input=script, text=True, check=True)


def drop_at(space, device):
    chain = f"type filter hook ingress device {device} priority 0"
    nft(space, f"table netdev sink {{\n chain sink {{ {chain}; meta l4proto {{ tcp, udp }} counter drop\n }}\n}}\n")


def let_in(space):
    return packets(space, "netdev sink")


def packets(space, table):
    """What the only counter of a table says; then the table goes."""
    shown = ["ip", "netns", "exec", space, "nft", "list", "table", *table.split()]
    shown = subprocess.run(shown, stdout=subprocess.PIPE, text=True, check=True).stdout
    nft(space, f"delete table {table}\n")
    words = shown.split()
    return int(words[words.index("packets") + 1])


def talk(prefix, clients, target, port, sessions, each):
    """One socket for each address and port; they take turns."""
    sockets = []
    for number in range(sessions):
        client, port_of = number % clients, 10000 + number // clients
        kind = socket.SOCK_STREAM if each and number % each == 0 else socket.SOCK_DGRAM
        one = socket.socket(family(target), kind)
        one.settimeout(5)
        one.bind((f"{prefix}{client + 2}", port_of))
        one.connect((target, port))
        sockets.append(one)
    begun, rounds = time.monotonic(), 0
    while rounds < 3 or time.monotonic() - begun < 5:
        for one in sockets:
            one.send(b"x")
            one.recv(100)
        rounds += 1
        time.sleep(1)
    print("talked", flush=True)
    threading.Event().wait()


def main(words):
    if words[:1] == ["serve"] and len(words) > 2:
        serve(int(words[1]), words[2:])
    elif words[:1] == ["cost"] and len(words) == 12:
        kind, device, source, target, port, count, *rest = words[1:]
        cost(kind, device, source, target, int(port), int(count), *rest)
    elif words[:1] == ["talk"] and len(words) == 7:
        prefix, clients, target, port, sessions, each = words[1:]
        talk(prefix, int(clients), target, int(port), int(sessions), int(each))
    else:
        sys.exit(__doc__)


main(sys.argv[1:])
