-- Idempotent, and safe when several instances start at once: the lock makes them take turns.
begin;
select pg_advisory_xact_lock(7364215);
create schema if not exists shop;

create table if not exists shop.products (
    id integer primary key,
    name text not null,
    note text not null,
    price_cents bigint not null check (price_cents > 0)
);

create table if not exists shop.accounts (
    id integer primary key,
    name text not null
);

create table if not exists shop.orders (
    id bigint generated always as identity primary key,
    key text not null unique,
    product_id integer not null references shop.products,
    quantity integer not null check (quantity > 0),
    amount_cents bigint not null,
    placed_at timestamptz not null default clock_timestamp(),
    placed_by text not null,
    repeats integer not null default 0
);
create index if not exists orders_placed_at on shop.orders (placed_at);

-- Double entry: for every order one entry takes from the customers' account what the other gives to sales.
create table if not exists shop.entries (
    order_id bigint not null references shop.orders,
    account_id integer not null references shop.accounts,
    amount_cents bigint not null,
    primary key (order_id, account_id)
);

insert into shop.accounts (id, name) values (1, 'customers'), (2, 'sales') on conflict do nothing;
insert into shop.products (id, name, note, price_cents) values
    (1, 'Storm lantern', 'Burns through any power cut', 3900),
    (2, 'Spare key', 'For the other door', 450),
    (3, 'Double-bottomed boat', 'One may leak', 124000),
    (4, 'Two-sided umbrella', 'Rain from below included', 2750),
    (5, 'Second alarm clock', 'Wakes the first one', 1890),
    (6, 'Fire blanket', 'Hopefully never used', 2200)
on conflict do nothing;
commit;
