"""What a plant's text says may pass, worked out without a line of Bulkhead: the oracle of the packet matrix. It reads plant.yaml as
docs/plants.md describes it and knows the ports of the known services from their own specifications."""
import ipaddress

import yaml

KNOWN = {"bacnet": "udp/47808", "dhcp": "udp/67", "dnp3": "tcp/20000 udp/20000", "dns": "tcp/53 udp/53",
         "ethernet-ip": "tcp/44818 udp/44818 udp/2222", "http": "tcp/80", "https": "tcp/443", "iec-104": "tcp/2404", "modbus": "tcp/502",
         "mqtt": "tcp/1883", "mqtts": "tcp/8883", "ntp": "udp/123", "opc-ua": "tcp/4840", "ping": "ping/0", "profinet-dcp": "ethernet/34962",
         "rdp": "tcp/3389 udp/3389", "s7comm": "tcp/102", "ssh": "tcp/22", "syslog": "udp/514"}


def as_list(value):
    return value if isinstance(value, list) else [] if value is None else [value]


class Oracle:
    def __init__(self, text):
        spec = yaml.safe_load(text)["spec"]
        self.zones, self.groups = spec["zones"], spec.get("groups", {})
        self.sets = {name: [ipaddress.ip_network(each) for each in as_list(value)] for name, value in spec.get("addresses", {}).items()}
        self.services = {**{name: text.split() for name, text in KNOWN.items()},
                         **{name: as_list(value) for name, value in spec.get("services", {}).items()}}
        self.conduits = list(spec.get("conduits", {}).values())
        self.cards = {f"{name}.{number}": card for name, machine in spec["machines"].items()
                      for number, card in enumerate(as_list(machine["nics"]))}

    def zone(self, card):
        card = self.cards[card]
        return card["zone"] if "zone" in card else self.groups[card["group"]]["zone"]

    def vlan(self, card):
        group = self.groups.get(self.cards[card].get("group"), {})
        return group.get("vlan", self.zones[self.zone(card)].get("vlan", 1))

    def meet(self, one, other):
        """Whether anything may pass by VLAN and port group."""
        group = self.cards[one].get("group")
        apart = group is not None and group == self.cards[other].get("group") and self.groups[group].get("within-group") == "deny"
        return self.vlan(one) == self.vlan(other) and not apart

    def may_serve_addresses(self, card):
        return self.groups.get(self.cards[card].get("group"), {}).get("network-services") == "allow"

    def names(self, service, protocol, port):
        for words in self.services.get(service, [service]):
            kind, _, ports = words.partition("/")
            first, _, last = ports.partition("-")
            if kind == protocol and (protocol == "ping" or int(first) <= port <= int(last or first)):
                return True
        return False

    def within(self, card, name):
        return name is None or any(ipaddress.ip_address(self.cards[card]["address"]) in each for each in self.sets[name])

    def conduits_between(self, one, other):
        return [each for each in self.conduits if (each["from"], each["to"]) == (self.zone(one), self.zone(other))]

    def begins(self, one, other, protocol, port):
        """The direction ("answered", "one-way") in which a first packet passes, or None."""
        if not self.meet(one, other):
            return None
        if self.zone(one) == self.zone(other):
            return "answered"
        for each in self.conduits_between(one, other):
            if protocol == "ethernet" and ("from-addresses" in each or "to-addresses" in each):
                continue
            addresses = protocol == "ethernet" or (self.within(one, each.get("from-addresses")) and self.within(other, each.get("to-addresses")))
            direction = each.get("direction", "answered")
            if direction == "one-way" and protocol != "udp":
                continue
            if addresses and any(self.names(service, protocol, port) for service in as_list(each["services"])):
                return direction
        return None

    def neighbours(self, one, other):
        """Whether they may find each other by ARP."""
        answered = [each for pair in ((one, other), (other, one)) for each in self.conduits_between(*pair) if each.get("direction") != "one-way"]
        return self.meet(one, other) and (self.zone(one) == self.zone(other) or bool(answered))

    def asked(self):
        """Each protocol and port that is worth a try: those of all services, and their neighbours."""
        asked = {("ping", 0), ("tcp", 1), ("udp", 65535), ("ethernet", 0x88B5)}
        for words in self.services.values():
            for word in words:
                kind, _, ports = word.partition("/")
                for port in ports.split("-"):
                    near = (int(port) - 1, int(port), int(port) + 1) if kind in ("tcp", "udp") else (int(port),)
                    asked |= {(kind, each) for each in near}
        return sorted(asked)


# ---- Modbus, from MODBUS Application Protocol 1.1b3 ----

READS, WRITES = {1, 2, 3, 4, 24}, {5, 6, 15, 16, 22, 23}


class ModbusOracle:
    """Rules as a conduit's modbus has them."""

    def __init__(self, rules):
        self.rules = [self.rule(each) for each in as_list(rules)]

    @staticmethod
    def numbers(value, largest):
        numbers = set()
        for each in as_list(value):
            first, _, last = str(each).partition("-")
            numbers |= set(range(int(first), int(last or first) + 1))
        return numbers or set(range(largest + 1))

    def rule(self, each):
        functions = set()
        for word in as_list(each["functions"]):
            functions |= {"read": READS, "write": WRITES, "all": set(range(1, 128))}.get(word) or self.numbers(word, 127)
        first, _, last = str(each.get("addresses", "0-65535")).partition("-")
        return functions, self.numbers(each.get("units"), 255), (int(first), int(last or first))

    def verdict(self, unit, function, ranges):
        """None when it passes, else the exception's number."""
        of_function = [rule for rule in self.rules if function in rule[0] and unit in rule[1]]
        if not of_function:
            return 1
        if any(all(first >= low and last <= high for first, last in ranges) for _, _, (low, high) in of_function):
            return None
        return 2
