"""Flows through the switch process whose beginning or end it has not seen: connections that are older than the switch, questions to
everybody, and addresses that belong to others."""
import signal

from frames import ACK, BROADCAST, PSH, RST, SYN, arp, ethernet, ipv4, tcp, tcp_payload, udp, udp_datagram
from test_switch import Plant, folder  # noqa: F401  (a fixture)

PLANT = """
kind: Plant
metadata: {name: flows}
spec:
  switches: {plant: {network: 10.88.0.0/24}}
  zones: {station: {}, control: {}}
  conduits:
    login: {from: station, to: control, services: [ssh, bacnet]}
    polling: {from: station, to: control, services: modbus, modbus: {functions: read}}
  machines:
    hmi: {kernel: k, nics: [{zone: station, address: 10.88.0.1, mac: "02:00:00:00:00:01"}]}
    guest: {kernel: k, nics: [{zone: station, mac: "02:00:00:00:00:02"}]}
    plc1: {kernel: k, nics: [{zone: control, address: 10.88.0.11, mac: "02:00:00:00:00:11"}]}
    plc2: {kernel: k, nics: [{zone: control, address: 10.88.0.12, mac: "02:00:00:00:00:12"}]}
"""


def connect(plant, client, server, port):
    client.send(tcp(client, server, 4000, port, SYN, 999))
    server.send(tcp(server, client, port, 4000, SYN | ACK, 1999, 1000))
    client.send(tcp(client, server, 4000, port, ACK, 1000, 2000))
    plant.settle()
    assert tcp_payload(server.received()[-1])[2] == ACK and tcp_payload(client.received()[-1])[2] == SYN | ACK


def restart(plant):
    plant.switch.stop(signal.SIGKILL)
    for card in plant.cards.values():
        card.close()
    plant.switch.start()
    for card in plant.cards.values():
        card.connect()


def test_connections_outlive_the_switch_or_are_ended_at_once(folder):  # noqa: F811
    with Plant(folder, PLANT) as plant:
        hmi, plc = plant.cards["hmi.0"], plant.cards["plc1.0"]
        connect(plant, hmi, plc, 22)
        restart(plant)
        # The client speaks first, or after another death the server.
        hmi.send(question := tcp(hmi, plc, 4000, 22, ACK | PSH, 1000, 2000, b"question"))
        plc.wait_for(lambda frame: frame == question)
        plc.send(answer := tcp(plc, hmi, 22, 4000, ACK | PSH, 2000, 1008, b"answer"))
        hmi.wait_for(lambda frame: frame == answer)
        restart(plant)
        plc.send(more := tcp(plc, hmi, 22, 4000, ACK | PSH, 2006, 1008, b"more"))
        hmi.wait_for(lambda frame: frame == more)
        # Of an inspected one nobody knows what was said before: both ends hear that it is over, and begin anew.
        connect(plant, hmi, plc, 502)
        restart(plant)
        hmi.send(request := tcp(hmi, plc, 4000, 502, ACK | PSH, 1000, 2000, bytes((0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1))))
        to_client = [tcp_payload(frame) for frame in hmi.wait_for(lambda frame: (tcp_payload(frame) or (0,) * 3)[2] & RST)]
        to_server = plc.wait_for(lambda frame: (tcp_payload(frame) or (0,) * 3)[2] & RST)
        assert to_client[-1][:4] == (502, 4000, RST | ACK, 2000)
        assert request not in to_server and tcp_payload(to_server[-1])[:4] == (4000, 502, RST | ACK, 1000)
        connect(plant, hmi, plc, 502)


def test_all_of_a_zone_answer_a_question_to_everybody(folder):  # noqa: F811
    with Plant(folder, PLANT) as plant:
        hmi, plcs = plant.cards["hmi.0"], [plant.cards["plc1.0"], plant.cards["plc2.0"]]
        datagram = udp_datagram(hmi.address, "10.88.0.255", 47808, 47808, b"who is")
        early = udp(plcs[0], hmi, 47808, 47808, b"nobody asked")
        plcs[0].send(early)
        hmi.send(question := ethernet(hmi.mac, BROADCAST, 0x0800, ipv4(hmi.address, "10.88.0.255", 17, datagram)))
        plant.settle()
        answers = [udp(plc, hmi, 47808, 47808, b"i am") for plc in plcs]
        for plc, answer in zip(plcs, answers):
            assert question in plc.received()
            plc.send(answer)
        plant.settle()
        came = hmi.received()
        assert early not in came and all(answer in came for answer in answers)


def test_a_card_without_an_address_takes_nobody_elses(folder):  # noqa: F811
    with Plant(folder, PLANT) as plant:
        hmi, guest, plc = (plant.cards[name] for name in ("hmi.0", "guest.0", "plc1.0"))
        guest.address = "10.88.0.77"
        forged = [arp(guest, plc.address, sender=hmi.address), arp(guest, plc.address, sender=plc.address, reply_to=hmi)]
        honest = arp(guest, plc.address)
        guest.send(*forged, honest)
        plant.settle()
        came = hmi.received() + plc.received()
        assert honest in came and not [frame for frame in forged if frame in came]
        assert "forged address 2" in " ".join(plant.switch.port("guest.0"))
